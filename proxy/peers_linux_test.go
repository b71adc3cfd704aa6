package proxy

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
)

// A connection from this machine is its user's, by either protocol; one from elsewhere is
// nobody's.
func TestPeerIsItsUsers(t *testing.T) {
	var p peers
	p.open()
	t.Cleanup(p.close)
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
		if got, want := p.user(s), fmt.Sprint(" user ", os.Getuid()); got != want {
			t.Errorf("%s: %q, want %q", addr, got, want)
		}
	}
}

// The list is read as the kernel writes it, and what is none of it is passed over.
func TestUserOfReadsTheKernelsList(t *testing.T) {
	list := `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000   999        0 1 1 0000000000000000 100 0 0 10 0
   1: 0100007F:CAFE 0100007F:1466 01 00000000:00000000 00:00000000 00000000  1000        0 2 1 0000000000000000 100 0 0 10 0
   2: 0000000000000000FFFF00000100007F:BEEF 0000000000000000FFFF00000100007F:1466 01 00000000:00000000 00:00000000 00000000  1001        0 3 1
   3: nonsense
`
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		t.Skip("written by a little-endian machine")
	}
	for port, want := range map[uint16]int{0xCAFE: 1000, 0xBEEF: 1001, 0x1F90: -1, 1: -1} {
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
