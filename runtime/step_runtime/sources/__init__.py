"""Where frames come from: video files and URLs, folders of frames, cameras."""
