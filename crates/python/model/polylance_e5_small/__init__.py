"""The weights of `builtin:multilingual-e5-small`. The package `polylance` reads them from this folder."""
