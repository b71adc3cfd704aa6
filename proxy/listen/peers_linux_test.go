package listen

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"otrproxy/test/need"
)

// A connection from this machine is its user's, by either protocol; one from elsewhere is
// nobody's.
func TestPeerIsItsUsers(t *testing.T) {
	var p Peers
	p.open()
	t.Cleanup(p.Close)
	if p.diag == nil {
		need.Missing(t, "a kernel that tells of single connections (sock_diag)")
	}
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Logf("%s: %v", addr, err) // a machine without IPv6
			continue
		}
		defer l.Close()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		want := fmt.Sprint(" user ", os.Getuid())
		if got := p.user(s); got != want {
			t.Errorf("%s: %q, want %q", addr, got, want)
		}
		there, here := s.RemoteAddr().(*net.TCPAddr).AddrPort(), s.LocalAddr().(*net.TCPAddr).AddrPort()
		if uid, ok := p.diag.userOf(there, here); !ok || uid != os.Getuid() {
			t.Errorf("%s: the kernel says %d %v", addr, uid, ok)
		}
		mapped := func(a netip.AddrPort) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
		}
		if uid, ok := p.diag.userOf(mapped(there), mapped(here)); !ok || uid != os.Getuid() {
			t.Errorf("%s, with addresses of IPv6: %d %v", addr, uid, ok)
		}
		if uid, ok := p.diag.userOf(there, netip.AddrPortFrom(here.Addr(), here.Port()^1)); ok {
			t.Errorf("%s: there is a user %d of no connection", addr, uid)
		}
		if uid, ok := p.diag.userOf(here, netip.AddrPortFrom(there.Addr(), there.Port()^1)); ok {
			t.Errorf("%s: there is a user %d of who only listens", addr, uid)
		}
		diag := p.diag
		if p.diag = nil; p.user(s) != want {
			t.Errorf("%s: the lists say %q, want %q", addr, p.user(s), want)
		}
		p.diag = diag
		c.Close()
		if got := p.user(s); got != "" {
			t.Errorf("%s: what is closed is%s's", addr, got)
		}
	}
}

// The list is read as the kernel writes it, and what is none of it is passed over.
func TestUserOfReadsTheKernelsList(t *testing.T) {
	list := `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000   999        0 1 1 0000000000000000 100 0 0 10 0
   1: 0100007F:CAFE 0100007F:1466 01 00000000:00000000 00:00000000 00000000  1000        0 2 1 0000000000000000 100 0 0 10 0
   2: 0000000000000000FFFF00000100007F:BEEF 0000000000000000FFFF00000100007F:1466 01 00000000:00000000 00:00000000 00000000  1001        0 3 1
   3: 0100007F:FADE 0100007F:1466 06 00000000:00000000 00:00000000 00000000     0        0 4 1 0000000000000000 100 0 0 10 0
   4: nonsense
`
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		t.Skip("written by a little-endian machine")
	}
	for port, want := range map[uint16]int{0xCAFE: 1000, 0xBEEF: 1001, 0x1F90: -1, 0xFADE: -1, 1: -1} {
		uid, ok := userOf(strings.NewReader(list), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), netip.MustParseAddrPort("127.0.0.1:5222"))
		if ok != (want >= 0) || ok && uid != want {
			t.Errorf("port %x: %d %v", port, uid, ok)
		}
	}
}

func FuzzUserOf(f *testing.F) {
	f.Add("   1: 0100007F:CAFE 0100007F:1466 01 00000000:00000000 00:00000000 00000000  1000 0 2 1\n")
	f.Fuzz(func(t *testing.T, list string) {
		userOf(strings.NewReader(list), netip.MustParseAddrPort("127.0.0.1:51966"), netip.MustParseAddrPort("127.0.0.1:5222"))
	})
}

// An answer of the kernel is cut anywhere, or about anything.
func FuzzDiagUserOf(f *testing.F) {
	from, to := netip.MustParseAddrPort("127.0.0.1:51966"), netip.MustParseAddrPort("127.0.0.1:5222")
	f.Add(make([]byte, diagHeader+diagAnswer))
	answer := make([]byte, diagHeader, diagHeader+diagAnswer)
	binary.NativeEndian.PutUint16(answer[4:], unix.SOCK_DIAG_BY_FAMILY)
	answer = append(answer, unix.AF_INET, unix.BPF_TCP_ESTABLISHED, 0, 0)
	answer = append(appendDiagPair(answer, from, to), make([]byte, diagSocket-36+20)...)
	f.Add(answer)
	f.Fuzz(func(t *testing.T, answer []byte) {
		uid, ok := diagUserOf(answer, from, to)
		if ok && (uid < 0 || !bytes.Contains(answer, appendDiagPair(nil, from, to))) {
			t.Errorf("user %d by %x", uid, answer)
		}
	})
}
