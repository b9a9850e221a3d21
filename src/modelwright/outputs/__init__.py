"""What models return: ModelOutput and its subclasses, one field per thing."""
