package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mincore says for each page of a mapping whether it is in memory: bit 0 of a
// byte of vec. Package unix has the number of mincore(2) but no function.
func mincore(m, vec []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_MINCORE,
		uintptr(unsafe.Pointer(unsafe.SliceData(m))), uintptr(len(m)), uintptr(unsafe.Pointer(unsafe.SliceData(vec))))
	if errno != 0 {
		return errno
	}
	return nil
}
