"""The inspection page: the server and the browser page on which an inspector reads and corrects."""
