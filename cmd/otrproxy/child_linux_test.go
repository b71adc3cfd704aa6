package main

import (
	"os/exec"
	"syscall"
)

// endWithUs makes a program end when the test does, however that ends.
func endWithUs(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
