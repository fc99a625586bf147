"""Generated from protos/k2/v1 by `make gen`; do not edit."""
