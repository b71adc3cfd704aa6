package control

import "net"

// listenPrivately opens a socket. Who may connect is said by the directory it is in: Windows
// has no mode, and the directory inherits the permissions of the user's profile.
func listenPrivately(path string) (net.Listener, error) { return net.Listen("unix", path) }
