//go:build linux

package main

func (b *bench) check(bool) error  { return nil }

const landedFile = "x"
