"""The desktop window over ledetr: session and settings here without Qt, widgets in ui/."""
