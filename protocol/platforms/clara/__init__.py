"""Clara Platform over gRPC, with the code that NVIDIA's client package has for it; needs the extra `clara`."""
