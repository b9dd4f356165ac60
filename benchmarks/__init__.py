"""What is measured, and decides no test; see README.md."""
