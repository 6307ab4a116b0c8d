"""Train one run: DomainBed's `python -m domainbed.scripts.train`, with its flags."""

from domainbed_sage.cli import script, train

if __name__ == "__main__":
    script(train, __doc__)
