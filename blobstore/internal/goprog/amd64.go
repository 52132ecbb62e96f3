package goprog

// What follows an opcode of amd64. Lengths depend on prefixes, opcode, ModRM and SIB only, never on
// the displacements and immediates that the filter changes.
const (
	opModRM  = 1 << iota // a ModRM byte, with SIB and displacement as it says
	opImm8               // one byte
	opImm16              // two bytes
	opImmZ               // four bytes; two with the prefix 66
	opImmV               // as opImmZ; eight with REX.W
	opMoffs              // eight bytes of address
	opRel32              // four bytes relative to the next instruction
	opGroup3             // opImm8 or opImmZ if ModRM.reg is 0 or 1
	opInvalid
)

var oneByte, twoByte = opcodeTables()

func opcodeTables() (one, two [256]uint16) {
	set := func(t *[256]uint16, from, to int, v uint16) {
		for i := from; i <= to; i++ {
			t[i] = v
		}
	}
	for op := 0; op < 0x40; op += 8 {
		set(&one, op, op+3, opModRM)
		one[op+4], one[op+5] = opImm8, opImmZ
		one[op+6], one[op+7] = opInvalid, opInvalid
	}
	one[0x63] = opModRM
	one[0x68], one[0x69], one[0x6a], one[0x6b] = opImmZ, opModRM|opImmZ, opImm8, opModRM|opImm8
	set(&one, 0x70, 0x7f, opImm8)
	set(&one, 0x80, 0x8f, opModRM)
	one[0x80], one[0x81], one[0x83] = opModRM|opImm8, opModRM|opImmZ, opModRM|opImm8
	set(&one, 0xa0, 0xa3, opMoffs)
	one[0xa8], one[0xa9] = opImm8, opImmZ
	set(&one, 0xb0, 0xb7, opImm8)
	set(&one, 0xb8, 0xbf, opImmV)
	one[0xc0], one[0xc1] = opModRM|opImm8, opModRM|opImm8
	one[0xc2], one[0xca] = opImm16, opImm16
	one[0xc6], one[0xc7] = opModRM|opImm8, opModRM|opImmZ
	one[0xc8] = opImm16 | opImm8
	one[0xcd] = opImm8
	set(&one, 0xd0, 0xd3, opModRM)
	set(&one, 0xd8, 0xdf, opModRM)
	set(&one, 0xe0, 0xe7, opImm8)
	one[0xe8], one[0xe9], one[0xeb] = opRel32, opRel32, opImm8
	one[0xf6], one[0xf7] = opModRM|opGroup3|opImm8, opModRM|opGroup3|opImmZ
	one[0xfe], one[0xff] = opModRM, opModRM

	set(&two, 0x00, 0xff, opModRM)
	set(&two, 0x04, 0x0c, 0)
	two[0x0e], two[0x0f] = 0, opModRM|opImm8
	set(&two, 0x30, 0x37, 0)
	set(&two, 0x70, 0x73, opModRM|opImm8)
	two[0x77] = 0
	set(&two, 0x80, 0x8f, opRel32)
	set(&two, 0xa0, 0xa2, 0)
	set(&two, 0xa8, 0xaa, 0)
	for _, op := range []int{0xa4, 0xac, 0xba, 0xc2, 0xc4, 0xc5, 0xc6} {
		two[op] = opModRM | opImm8
	}
	set(&two, 0xc8, 0xcf, 0)
	return one, two
}

// instruction decodes the instruction at the start of b. It returns its length, at least 1, and
// where its 32-bit displacement from the next instruction lies, or 0.
func instruction(b []byte) (length, field int) {
	if len(b) >= maxPlain {
		if length, field = plainInstruction((*[maxPlain]byte)(b)); length > 0 {
			return length, field
		}
	}
	return anyInstruction(b)
}

// maxPlain is more than the length of any instruction that plainInstruction knows: REX, two bytes
// of opcode, ModRM, SIB, and four bytes each of displacement and immediate.
const maxPlain = 16

// What follows an opcode, for plainInstruction: how many bytes of immediate, and
const (
	plainModRM = 1 << (iota + 4)
	plainRel32 // an immediate that is a displacement
	plainWide  // with REX.W, four bytes more
	plainNot   // for anyInstruction
)

// Of ModRM: the bytes from it on, and
const (
	modSIB = 1 << (iota + 4)
	modRIP // the displacement is from the next instruction
)

var (
	plainOne, plainTwo = plainTable(&oneByte), plainTable(&twoByte)
	plainMod           = modTable()
)

func plainTable(flags *[256]uint16) (t [256]byte) {
	for op, f := range flags {
		if f&(opMoffs|opGroup3|opInvalid) != 0 {
			t[op] = plainNot
			continue
		}
		t[op] = byte(immediate(f, false, false))
		if f&opModRM != 0 {
			t[op] |= plainModRM
		}
		if f&opRel32 != 0 {
			t[op] |= plainRel32 | 4
		}
		if f&opImmV != 0 {
			t[op] |= plainWide
		}
	}
	if flags == &oneByte {
		for op := range t {
			switch op {
			case 0x0f, 0xc4, 0xc5, 0x62, 0x66, 0x67, 0x64, 0x65, 0x2e, 0x36, 0x3e, 0x26, 0xf2, 0xf3, 0xf0:
				t[op] = plainNot
			}
			if op&0xf0 == 0x40 {
				t[op] = plainNot
			}
		}
	} else {
		t[0x38], t[0x3a] = plainNot, plainNot
	}
	return t
}

func modTable() (t [256]byte) {
	for m := range t {
		n, rip, _ := modRM([]byte{byte(m), 0, 0, 0, 0, 0})
		t[m] = byte(n)
		if rip {
			t[m] |= modRIP
		}
		if m>>6 == 0 && m&7 == 4 {
			t[m] |= modSIB
		}
	}
	return t
}

// plainInstruction is anyInstruction for the most frequent ones, 0 for others: it takes a third of
// the time.
func plainInstruction(b *[maxPlain]byte) (length, field int) {
	i, wide := 0, byte(0)
	op := b[0]
	if op&0xf0 == 0x40 {
		i, wide, op = 1, op&8, b[1]
	}
	var flags byte
	if op == 0x0f {
		flags = plainTwo[b[i+1]]
		i += 2
	} else {
		flags = plainOne[op]
		i++
	}
	if flags&plainNot != 0 {
		return 0, 0
	}
	if flags&plainModRM != 0 {
		mod := plainMod[b[i]]
		if mod&modRIP != 0 {
			field = i + 1
		}
		if mod&modSIB != 0 && b[i+1]&7 == 5 {
			i += 4
		}
		i += int(mod & 15)
	}
	if flags&plainRel32 != 0 {
		field = i
	}
	if flags&plainWide != 0 && wide != 0 {
		i += 4
	}
	return i + int(flags&15), field
}

func anyInstruction(b []byte) (length, field int) {
	i := 0
	var wide, short bool
prefixes:
	for ; i < len(b) && i < 14; i++ {
		switch c := b[i]; {
		case c == 0x66:
			short = true
		case c == 0x67, c == 0x64, c == 0x65, c == 0x2e, c == 0x36, c == 0x3e, c == 0x26, c >= 0xf2 && c <= 0xf3, c == 0xf0:
		case c&0xf0 == 0x40:
			wide = c&8 != 0
		default:
			break prefixes
		}
	}
	flags, n := opcode(b[i:])
	if flags&opInvalid != 0 {
		return i + 1, 0
	}
	i += n
	imm := 0
	if flags&opModRM != 0 {
		n, rip, reg := modRM(b[min(i, len(b)):])
		if n == 0 {
			return min(i, len(b)), 0
		}
		if rip {
			field = i + 1
		}
		i += n
		if flags&opGroup3 != 0 && reg > 1 {
			flags &^= opImm8 | opImmZ
		}
	}
	if flags&opRel32 != 0 {
		field, imm = i, 4
	}
	imm += immediate(flags, wide, short)
	if i+imm > len(b) {
		return max(len(b), 1), 0
	}
	return i + imm, field
}

func immediate(flags uint16, wide, short bool) int {
	n := 0
	if flags&opImm8 != 0 {
		n++
	}
	if flags&opImm16 != 0 {
		n += 2
	}
	if flags&opMoffs != 0 {
		n += 8
	}
	if flags&(opImmZ|opImmV) != 0 {
		switch {
		case flags&opImmV != 0 && wide:
			n += 8
		case short:
			n += 2
		default:
			n += 4
		}
	}
	return n
}

// opcode returns what follows the opcode at the start of b, and how long it is with its VEX or
// EVEX prefix.
func opcode(b []byte) (flags uint16, n int) {
	if len(b) < 6 {
		if len(b) == 0 || b[0] == 0x0f || b[0] == 0xc4 || b[0] == 0xc5 || b[0] == 0x62 {
			return opInvalid, 1
		}
		return oneByte[b[0]], 1
	}
	var space, op byte
	switch b[0] {
	case 0x0f:
		switch b[1] {
		case 0x38:
			return opModRM, 3
		case 0x3a:
			return opModRM | opImm8, 3
		}
		return twoByte[b[1]], 2
	case 0xc5:
		space, op, n = 1, b[2], 3
	case 0xc4:
		space, op, n = b[1]&31, b[3], 4
	case 0x62:
		space, op, n = b[1]&7, b[4], 5
	default:
		return oneByte[b[0]], 1
	}
	switch space {
	case 1:
		return twoByte[op], n
	case 2:
		return opModRM, n
	case 3:
		return opModRM | opImm8, n
	}
	return opInvalid, n
}

// modRM returns the length of ModRM, SIB and displacement, and whether it is relative to the next
// instruction.
func modRM(b []byte) (n int, rip bool, reg byte) {
	if len(b) == 0 {
		return 0, false, 0
	}
	mod, rm := b[0]>>6, b[0]&7
	reg = b[0] >> 3 & 7
	n = 1
	if mod == 3 {
		return n, false, reg
	}
	if rm == 4 {
		if len(b) < 2 {
			return 0, false, 0
		}
		n++
		if mod == 0 && b[1]&7 == 5 {
			n += 4
		}
	}
	switch {
	case mod == 1:
		n++
	case mod == 2:
		n += 4
	case rm == 5:
		n += 4
		rip = true
	}
	if n > len(b) {
		return 0, false, 0
	}
	return n, rip, reg
}
