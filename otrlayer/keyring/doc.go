// Package keyring is keys and trust on disk, in libotr's own formats, so that people move in and
// out with cp.
//
//	dir.go      where an account's files are
//	keys.go     the account's key, and what it knows of its contacts' keys
//	files.go    files of lines: appended to, written anew when a line goes, never torn
//	private.go  with whom a conversation was private, over restarts
//	maker.go    makes keys, one at a time, and some to spare
//	seal.go     has key files encrypted, where there is a passphrase
//	profile.go  reads the files of other programs
//
// Owned here: the files. What is known of contacts is guarded by its account's lock, which is
// not held while something is written.
//
// It must not know conversations, nor what a key is used for.
package keyring
