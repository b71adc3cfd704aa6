//go:build !linux

package proxy

import "net"

// peers knows whose a connection from this machine is; here nobody tells.
type peers struct{}

func (*peers) open()                {}
func (*peers) close()               {}
func (*peers) user(net.Conn) string { return "" }
