// Package goprog makes the references in Go programs independent of addresses, so that a delta
// between two releases sees what changed and not what moved.
//
// Between patch releases nearly every byte that differs in a program is part of a reference: a
// call's distance, a pointer, an offset into a table. Forward replaces them by labels, numbers made
// of what is referred to, such as the hash of a symbol's name; Inverse puts them back. The delta of
// compile 1.22.8 to 1.22.12 falls from 233 to 26 KB that way, 1.23.12 to 1.24.0 from 4.2 to 2.6 MB.
// The idea of labels is that of Courgette and Zucchini (Chromium); unlike theirs, a file is filtered
// without looking at another, so one filtered form serves as base for many.
//
// The filter knows ELF, Mach-O and PE for amd64 and arm64, with a symbol table. What it does not
// recognise stays as it is, and what Forward could not restore to the bit it refuses, so a stripped,
// foreign or hostile file costs density only. The formats differ in how a program says what lies where;
// what is done to code, function table and data is one. A function has the same bytes in all
// formats, so that asm for windows-amd64 is an eighth of its size beside that for linux-amd64.
//
// # Format
//
// Numbers are unsigned LEB128 varints, words little-endian.
//
//	filtered = version length body streams [order] [places] pool groups
//	version    one byte, 2
//	length     of the program
//	body       the program, filtered
//	streams    their number, at most 16; for each its distance from the end of the one before, the
//	           first from 0, its length, the length of what it inflates to, and that
//	order      in Mach-O and PE only: its length in bytes, and the order of symbols
//	places     in PE only: its length in bytes, and the places that .reloc lists
//	pool       its length in bytes, and targets
//	groups     three times: a length in bytes, and exceptions
//
// The body has the length of the program and the same headers. To restore it, take these steps in
// order. (1) and (2) need nothing else; (3) and (4) read the body as it is after (1). The streams
// may be put back at any time before (6).
//
// A program with more than 1024 + length/64 entries in its symbol table is not filtered. Sections are
// those with SHF_ALLOC and an address, except SHF_TLS; in Mach-O those with an address
// and not of the segment __DWARF; in PE those that are not to be discarded, except .pdata, each cut
// to its bytes in the file and followed by one for what has none. Mach-O's __text is called .text here,
// and so on. In PE .gopclntab reaches from runtime.pclntab to runtime.epclntab or, without that,
// to the end of its section, and .typelink from runtime.typelink to the next symbol.
//
// (1) Symbols, the entries of SHT_SYMTAB, of LC_SYMTAB, or of the COFF symbol table without its
// auxiliary entries. The offset of an entry's name is the stored one plus that of the entry before plus
// the length of that name with its NUL, beginning at 0; PE's names of 8 bytes stay and are passed
// over. A name of 4096 bytes and more, or without NUL, counts as empty. Mach-O's names count without
// an underscore at the start.
//
// In ELF a value is the stored one plus the end (value + size, for functions rounded up to 32) of the
// last entry whose section index has the same low byte, beginning at 0. In Mach-O and PE, which have no
// sizes and, the first, a table sorted by name, it is the stored one plus that of the entry below in the
// section. The order has a word for each entry that has a section: 1 where there is none below, 0 where it
// is the last entry before with the same section, else 0x40000000 + its label, which is made of its name
// as those of dictionaries are (3). Entries for debuggers (N_STAB) have no section.
//
// In PE each 12 bytes of .pdata are begin, end and handler of a function: stored are the difference
// from the end before (0 at first), from the begin, and from the start of .xdata. Where the places are
// not empty, .reloc is stored as zeros. The first byte of the places is what the length of its blocks is a
// multiple of, 2 or 4; then for each place there is the distance from the one before, the first from 0, as
// signed (zigzag) varint. Places in one page of 4096 bytes that follow each other are a block: the
// page and the length as words, and for each the offset in the page plus 0xa000 in 16 bits.
//
// (2) Targets. The symbols that lie in a section are sorted by address; of several at one address that
// of nonzero size, then the first counts. Where the format has no sizes, a symbol ends where the next
// begins or its section ends. The pool holds further targets, after the symbol that they follow: the number of symbols
// to go on (from the first), the number of targets, and for each its distance from the one before
// it, the first from the symbol.
//
// (3) Dictionaries. The function name table and the pc table of .gopclntab (magic 0xfffffff0 and
// 0xfffffff1) are cut into entries: strings with their NUL, and tables with the 0 that ends them, the
// last entry ending with the table. At most 1024 + len(body)/64 entries count. An
// entry's label is the highest 28 bits of its FNV-1a hash of 64 bits.
//
// (4) Labels of targets, 28 bits, on arm64 24, the lowest bits of a 32-bit hash, by the first of
// these rules that fits. H(x) is the upper half of the FNV-1a hash of 64 bits, S the symbol
// at or before the target, d the distance from it. The types are the bytes from runtime.types (or type:*,
// type.*) to the next symbol, or to the one after it where type:* or typerel.* lies at most 8 bytes
// behind; a container is a symbol whose name ends in ".*".
//
//   - A type, which is an address in the types, divisible by 8, with a valid tflag (< 64), alignment (1,
//     2, 4 or 8, twice) and kind (1 to 26 in its lower 5 bits) at bytes 20 to 23 of 48: H of six bytes,
//     tflag & 2, kind & 31 and the word at 40.
//   - The list 80 or 96 bytes behind the last type, if that is a struct or interface: the type's label
//     plus the distance.
//   - d = 0, or a target neither in the types nor behind a container: H(name of S) + d.
//   - Otherwise H of the bytes from the target to the next target, but at most 64 in the types, 1024
//     behind go:func.* (or go.func.*), 256 behind others.
//
// Labels are given in ascending order of targets, types and lists after all others. Where a label is
// taken, in a dictionary too, the next free of the 255 after it is, and else there is none.
//
// (5) Fields. A field is replaced if it holds a label that exists, unless it is an exception. The
// exceptions of a group are numbers of fields passed since the last exception. A label is written as
// 0x40000000 + label unless said otherwise. The groups and their fields, in order:
//
// First, the words divisible by 4 of go:func.* up to the next symbol: labels of function names, for offsets
// in their table. Then, for every function in the function table: its entry is stored as the
// difference from the next function symbol's after the last entry (without exceptions), its record's offset
// from the end of the last record. In records, the entry is stored as difference from that one and the
// compilation unit from the last record's; the name is 0 for the symbol's name, else a label; pcsp,
// pcfile, pcln and pcdata are 0x00000001 for the end of the furthest pc table used so far, else
// labels; funcdata are labels of go:func.* plus the offset. A record that begins before the end of the
// last one is passed over. runtime.findfunctab is the difference from what follows from the entries.
//
// Second, the code, from every function symbol of nonzero size to its end or the next function symbol.
// On amd64 the displacements of CALL rel32, JMP rel32, Jcc rel32 and of operands relative to RIP. On
// arm64 those of B and BL, where a label is written as 1<<24 + label, and of ADRP where ADD or
// a load or store with unsigned offset follows that uses its register: 1<<19 + label>>12 pages in
// the first, the rest of the label in the 12 bits of the second.
//
// Third, the data: all sections with bytes in the file and without code (SHF_EXECINSTR,
// S_ATTR_PURE_INSTRUCTIONS, IMAGE_SCN_MEM_EXECUTE) but .gopclntab. In .typelink every
// word is an offset from the types, written 0x50000000 + label. Elsewhere every 8 bytes at addresses divisible by 8 may be an
// address, unless they lie in go:string.* or touch go:func.* or findfunctab; in the types, where they are
// none, both words may be offsets: from the types as before, from runtime.text with 0x60000000.
//
// (6) Signature. Where LC_CODE_SIGNATURE is as cmd/link makes it, with SHA-256 for pages of 4096 bytes,
// each hash is the stored one XOR that of the page as it is after (5).
//
// Streams. Up to Go 1.20 the DWARF of programs is compressed: zlib streams behind the Elf64_Chdr of sections
// with SHF_COMPRESSED, else behind "ZLIB" and a length of 8 bytes. No delta sees anything in them, and
// they are a third of a program. In the body they are zeros; to restore one, deflate what it inflates to,
// as package deflate does, into its place. It must come to its length, and nothing that (1) to (6) touch
// may lie there. A stream that would become another stays in the body, and so does one that makes the
// filtered program too long. The programs of 1.20.14 are 1.9 times as long so, those of arm64 up to 2.1
// times, and a compacted store of that release takes 57.2 MB instead of 72.3.
package goprog
