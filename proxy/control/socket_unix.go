//go:build unix

package control

import (
	"net"
	"syscall"
)

// listenPrivately opens a socket that others than this user cannot connect to at any moment.
func listenPrivately(path string) (net.Listener, error) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	return net.Listen("unix", path)
}
