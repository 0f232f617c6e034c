"""Customer Value Journey: stages, next steps and whom to contact next."""
