//! Weir: Services and NetworkPolicy of a Kubernetes node in eBPF.
