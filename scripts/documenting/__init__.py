"""Pages and pictures made from the code, and the hooks with which MkDocs builds the site."""
