"""What assemblies of adversarially trained networks have in common."""
