"""Where bytes live: local disks, object stores, the Hugging Face hub."""
