"""One picture or clip -> what is said of the people in it, and why: predict.py and app.py stand on this."""
