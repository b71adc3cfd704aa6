//go:build unix

package upstream

import (
	"net"
	"strconv"
	"syscall"
	"time"
)

var silentPort int

// silentListener is a port whose queue is full: connections to it hang.
func silentListener(host string) (closeAll func(), err error) {
	fd, err := syscall.Socket(syscall.AF_INET6, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, err
	}
	syscall.CloseOnExec(fd)
	addr := &syscall.SockaddrInet6{}
	copy(addr.Addr[:], net.ParseIP(host).To16())
	if err = syscall.Bind(fd, addr); err == nil {
		err = syscall.Listen(fd, 0)
	}
	if err != nil {
		syscall.Close(fd)
		return nil, err
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		syscall.Close(fd)
		return nil, err
	}
	silentPort = sa.(*syscall.SockaddrInet6).Port
	var conns []net.Conn
	for range 8 { // until one hangs
		c, err := net.DialTimeout("tcp", net.JoinHostPort(host, strconv.Itoa(silentPort)), 200*time.Millisecond)
		if err != nil {
			break
		}
		conns = append(conns, c)
	}
	return func() {
		for _, c := range conns {
			c.Close()
		}
		syscall.Close(fd)
	}, nil
}
