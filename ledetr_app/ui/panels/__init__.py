"""One panel, one file: each shows a part of the session and sends its commands there."""
