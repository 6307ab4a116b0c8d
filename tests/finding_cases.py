"""What tests of findings about the paper share."""


def by_place(findings):
    """Findings by the place in the paper that they are about."""
    return {one.where: one for one in findings}
