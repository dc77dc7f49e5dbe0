// The webcam, frame by frame.

/** Open the webcam: frame() gives the pixels of the next frame, or null when the camera stopped; image shows them. */
export async function openWebcam() {
  const stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480, facingMode: "user" } });
  const video = Object.assign(document.createElement("video"), { srcObject: stream, muted: true, playsInline: true });
  const [track] = stream.getVideoTracks();
  try {
    await video.play();
  } catch (error) {
    track.stop(); // the camera's light would stay on
    throw error;
  }
  const image = document.createElement("canvas");
  const context = image.getContext("2d", { willReadFrequently: true });
  let shown = -1; // the time of the last frame
  return {
    image,
    async frame() {
      while (video.currentTime === shown && track.readyState === "live") await new Promise(requestAnimationFrame);
      shown = video.currentTime;
      if (track.readyState !== "live") return null;
      const [width, height] = [video.videoWidth, video.videoHeight];
      if (image.width !== width || image.height !== height) Object.assign(image, { width, height });
      const copied = await copyOf(video, width, height);
      if (!copied) context.drawImage(video, 0, 0);
      else context.putImageData(copied, 0, 0);
      return copied ?? context.getImageData(0, 0, width, height);
    },
    stop: () => track.stop(),
  };
}

/** The pixels of a video's frame. Chromium keeps each frame that is drawn in memory for long; null where it must be drawn. */
async function copyOf(video, width, height) {
  if (!self.VideoFrame) return null;
  const frame = new VideoFrame(video);
  try {
    if (frame.visibleRect.width !== width || frame.visibleRect.height !== height) return null; // turned, on a phone
    const pixels = new ImageData(width, height);
    await frame.copyTo(pixels.data, { format: "RGBA" });
    return pixels;
  } catch {
    return null; // the browser does not convert to RGBA
  } finally {
    frame.close();
  }
}
