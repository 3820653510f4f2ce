# Sourced, in the repository's root, by scripts that go through the table of instruction sets in Package.swift.
instruction_set_rows=$(sed -n '/^let instructionSets/,/^]/p' Package.swift | tr -d '\n' | sed 's/InstructionSet(/\n&/g')

# Names of those of an architecture, which is called as Swift calls it. Fails where there are none.
instruction_sets() {
  sed -nE "s/.* name: \"([^\"]*)\".* architecture: \"($1|any)\".*/\1/p" <<< "$instruction_set_rows" | grep .
}
# What the table says of one: its target, flags, defines, or a pattern that it uses or never uses.
of_set() { # name, column
  sed -nE "/ name: \"$1\"/s/.* $2: #*\"([^\"]*)\".*/\1/p" <<< "$instruction_set_rows"
}
