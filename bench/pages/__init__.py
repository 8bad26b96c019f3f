"""Web pages that say what they show, so that a recording of them can be checked: files, and a server for them."""
