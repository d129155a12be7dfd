"""The source of the machine code of the operator `MultidropDropout`; see `multidrop.host.objects`."""
