"""All message and update blocks of a network in one operation, with what training needs of its derivatives."""
