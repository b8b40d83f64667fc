"""What a policy sees: images from cameras, and numbers about robot and objects."""
