# Sourced by scripts that check several things: counts them, and says which are not so. $subject begins every such line.
passed=0 failed=0

check() { # what, command...
  local what=$1
  shift
  if "$@"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "$subject: not so: $what" >&2
  fi
}

finish() {
  echo "$passed passed, $failed failed"
  [ "$failed" -eq 0 ]
}
