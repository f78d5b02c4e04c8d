"""The checks of the exercises, a module for each topic; exercises.toml names them."""
