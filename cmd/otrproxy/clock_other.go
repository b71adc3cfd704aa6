//go:build !linux

package main

// monotonic is for service managers that there are on Linux only.
func monotonic() int64 { return 0 }
