"""The browser page of MusiLingo: drop a song, talk about it.

`handlers` is what the page does, `page` is how it looks; neither knows how music is heard.
"""
