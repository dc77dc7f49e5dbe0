"""A window that shows images one after the other."""

from PIL import Image

from fer_jax.core.errors import UserError, one_line


class Window:
    """A window of the desktop; q, Esc or its button close it."""

    def __init__(self, title: str) -> None:
        """Open the window.

        Raises:
            UserError: this Python has no tkinter, or there is no display.
        """
        try:  # Linux distributions have tkinter in a package of its own
            import tkinter

            from PIL import ImageTk
        except ImportError:
            raise UserError(
                "this Python has no tkinter for a window: install it (Debian: apt install python3-tk "
                "python3-pil.imagetk), or give --no-window"
            ) from None
        self._photo = ImageTk.PhotoImage
        try:
            self._root = tkinter.Tk()
        except tkinter.TclError as error:
            raise UserError(f"no window can be opened ({one_line(error)}): give --no-window") from None
        self.is_open = True
        self._root.title(title)
        self._root.resizable(False, False)
        self._root.protocol("WM_DELETE_WINDOW", self.close)
        for key in ("q", "<Escape>"):
            self._root.bind(key, lambda _: self.close())
        self._label = tkinter.Label(self._root, borderwidth=0)
        self._label.pack()
        self._shown: object = None  # tkinter draws no image that Python has freed

    def show(self, image: Image.Image) -> None:
        """Show an image, and take the keys that were pressed."""
        if self.is_open:
            photo = self._photo(image, master=self._root)
            self._label.configure(image=photo)
            self._shown = photo
            self._root.update()

    def close(self) -> None:
        """Close the window."""
        if self.is_open:
            self.is_open = False
            self._root.destroy()
