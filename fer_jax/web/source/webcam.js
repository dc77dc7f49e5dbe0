// The webcam, frame by frame.

/** Open the webcam: frame() gives the next frame, or null when the camera stopped. */
export async function openWebcam() {
  const stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480, facingMode: "user" } });
  const video = Object.assign(document.createElement("video"), { srcObject: stream, muted: true, playsInline: true });
  await video.play();
  const [track] = stream.getVideoTracks();
  let shown = -1; // the time of the last frame
  return {
    async frame() {
      while (video.currentTime === shown && track.readyState === "live") await new Promise(requestAnimationFrame);
      shown = video.currentTime;
      return track.readyState === "live" ? createImageBitmap(video) : null;
    },
    stop: () => track.stop(),
  };
}
