"""Pages and pictures that are made from the code, and the hooks by which MkDocs builds the site."""
