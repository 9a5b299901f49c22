"""`ray start` of a further node whose servers keep to loopback."""

from ray.scripts.scripts import main

from trainer.private import keep_nodes_to_loopback

if __name__ == "__main__":
    keep_nodes_to_loopback()
    main()
