#!/bin/sh
# Runs a CUDA compiler (the arguments) and keeps what ptxas says of registers, stack and spills beside the object, in
# OBJECT.ptxas: scripts/ptxas_check.py reads it, and no kernel is compiled twice. CMake starts nvcc through this.
object=""
previous=""
for argument in "$@"; do
  [ "$previous" = "-o" ] && object=$argument
  previous=$argument
done
[ -n "$object" ] || exec "$@"
"$@" 2>"$object.said"
code=$?
# A line of ptxas's report; everything else is for the reader.
report='^ptxas info|^    [0-9]+ bytes stack frame'
grep -Ev "$report" "$object.said" >&2
grep -E "$report" "$object.said" >"$object.ptxas"
rm -f "$object.said"
exit $code
