// Package address reads JIDs as they are written (RFC 7622), and says which of them are the
// proxy's own, or look so. A passed stanza costs no parsing: what was read is remembered, for all
// sessions together.
//
// Owned here: what was read lately. It must not know sessions, rules, or sockets.
package address
