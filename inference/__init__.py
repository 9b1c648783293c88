"""From a picture or a video to verdicts and explanations."""
