"""The page that reads faces in a browser: its sources, the built files, and the server."""
