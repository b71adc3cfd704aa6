//go:build !windows

package main

// asService runs the program; only Windows tells services to go by another way than others.
func asService(program func() error) error { return program() }
