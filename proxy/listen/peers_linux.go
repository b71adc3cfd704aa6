package listen

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Peers knows whose a connection from this machine is: the kernel is asked for the one, or
// its lists are read where it does not answer. Both are opened before the process is confined.
type Peers struct {
	mu    sync.Mutex
	diag  *diag // nil where there is none
	lists []*os.File
}

func (p *Peers) open() {
	p.diag, _ = openDiag() // without it there are the lists
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		if f, err := os.Open(name); err == nil {
			p.lists = append(p.lists, f)
		}
	}
}

// Close asks nobody any more.
func (p *Peers) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.lists {
		f.Close()
	}
	p.lists = nil
	if p.diag != nil {
		p.diag.close()
		p.diag = nil
	}
}

// user is the other end's user, in words; "" for who comes from elsewhere, or where that is
// not known.
func (p *Peers) user(conn net.Conn) string {
	there, ok := conn.RemoteAddr().(*net.TCPAddr)
	here, ok2 := conn.LocalAddr().(*net.TCPAddr)
	if !ok || !ok2 || !there.IP.IsLoopback() {
		return ""
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.diag != nil {
		if uid, ok := p.diag.userOf(there.AddrPort(), here.AddrPort()); ok {
			return fmt.Sprint(" user ", uid)
		}
	}
	for _, f := range p.lists {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			continue
		}
		if uid, ok := userOf(f, there.AddrPort(), here.AddrPort()); ok {
			return fmt.Sprint(" user ", uid)
		}
	}
	return ""
}

// userOf finds the user of a connection in a list of the kernel's (proc(5), /proc/net/tcp).
func userOf(list io.Reader, from, to netip.AddrPort) (uid int, ok bool) {
	for lines := bufio.NewScanner(list); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 8 {
			continue
		}
		local, err := addrIn(f[1])
		remote, err2 := addrIn(f[2])
		state, err3 := strconv.ParseUint(f[3], 16, 8)
		if err != nil || err2 != nil || err3 != nil || !isOpen(int(state)) || local != plainAddr(from) || remote != plainAddr(to) {
			continue
		}
		uid, err := strconv.Atoi(f[7])
		return uid, err == nil
	}
	return 0, false
}

// isOpen reports whether in that state of TCP a socket has somebody who has it open; of the
// others the kernel says that they are user 0's.
func isOpen(state int) bool {
	return state == unix.BPF_TCP_ESTABLISHED || state == unix.BPF_TCP_CLOSE_WAIT
}

func plainAddr(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// addrIn reads an address as the kernel writes it: 32 bits at a time, in the machine's order.
func addrIn(s string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(s, ":")
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil || len(host) != 8 && len(host) != 32 {
		return netip.AddrPort{}, fmt.Errorf("%q is no address", s)
	}
	var b []byte
	for i := 0; i < len(host); i += 8 {
		word, err := strconv.ParseUint(host[i:i+8], 16, 32)
		if err != nil {
			return netip.AddrPort{}, err
		}
		b = binary.NativeEndian.AppendUint32(b, uint32(word))
	}
	ip, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), nil
}
