package listen

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// A diag asks the kernel about single connections (sock_diag(7)), which costs the same
// however many there are.
type diag struct {
	fd  int
	seq uint32 // of the last question
}

// openDiag reports an error where the kernel does not answer such questions. Whether it
// answers them about TCP is seen by the answers.
func openDiag() (*diag, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, err
	}
	return &diag{fd: fd}, nil
}

func (d *diag) close() { unix.Close(d.fd) }

// Shapes of linux/netlink.h and linux/inet_diag.h, in bytes.
const (
	diagHeader  = 16                  // struct nlmsghdr
	diagSocket  = 48                  // struct inet_diag_sockid: ports and addresses as on the network, then interface and cookie
	diagRequest = 8 + diagSocket      // struct inet_diag_req_v2
	diagAnswer  = 4 + diagSocket + 20 // struct inet_diag_msg
	diagUID     = 4 + diagSocket + 12 // in it
)

// userOf finds the user of a connection of this machine. While an answer is made the
// question waits in the kernel, so there is nothing to wait for afterwards.
func (d *diag) userOf(from, to netip.AddrPort) (uid int, ok bool) {
	d.seq++
	if _, err := unix.Write(d.fd, appendDiagRequest(nil, d.seq, from, to)); err != nil {
		return 0, false
	}
	for answer := make([]byte, 4096); ; {
		n, err := unix.Read(d.fd, answer)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n < diagHeader {
			return 0, false
		}
		if binary.NativeEndian.Uint32(answer[8:]) == d.seq { // and not of a question given up
			return diagUserOf(answer[:n], from, to)
		}
	}
}

// appendDiagRequest asks for the socket at one end of a connection.
func appendDiagRequest(b []byte, seq uint32, from, to netip.AddrPort) []byte {
	native := binary.NativeEndian
	b = native.AppendUint32(b, diagHeader+diagRequest)
	b = native.AppendUint16(b, unix.SOCK_DIAG_BY_FAMILY)
	b = native.AppendUint16(b, unix.NLM_F_REQUEST)
	b = native.AppendUint32(b, seq)
	b = native.AppendUint32(b, 0) // any sender
	family := byte(unix.AF_INET6)
	if from.Addr().Unmap().Is4() {
		family = unix.AF_INET
	}
	b = append(b, family, unix.IPPROTO_TCP, 0, 0)
	b = native.AppendUint32(b, ^uint32(0)) // in any state
	b = appendDiagPair(b, from, to)
	b = native.AppendUint32(b, 0)             // at any interface
	return native.AppendUint64(b, ^uint64(0)) // and no cookie
}

// appendDiagPair appends the two ends of a connection, as a struct inet_diag_sockid begins.
func appendDiagPair(b []byte, from, to netip.AddrPort) []byte {
	b = binary.BigEndian.AppendUint16(b, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	for _, a := range []netip.AddrPort{from, to} {
		var room [16]byte // which an address of four bytes does not fill
		copy(room[:], a.Addr().Unmap().AsSlice())
		b = append(b, room[:]...)
	}
	return b
}

// diagUserOf reads the answer. It counts where it is about the very connection, and somebody
// has it open: the kernel writes user 0 for one that is closed.
func diagUserOf(answer []byte, from, to netip.AddrPort) (uid int, ok bool) {
	if len(answer) < diagHeader+diagAnswer || binary.NativeEndian.Uint16(answer[4:]) != unix.SOCK_DIAG_BY_FAMILY {
		return 0, false
	}
	socket := answer[diagHeader:]
	pair := appendDiagPair(nil, from, to)
	if !isOpen(int(socket[1])) || string(socket[4:4+len(pair)]) != string(pair) {
		return 0, false
	}
	return int(binary.NativeEndian.Uint32(socket[diagUID:])), true
}
