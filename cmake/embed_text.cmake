# Makes a C++ string of a text file: cmake -DINPUT=FILE -DOUTPUT=FILE.cpp -DNAME=kSomething -P embed_text.cmake
file(READ "${INPUT}" text)
# Raw strings may be limited in length by a compiler, so a long text is several of them, one after the other.
string(LENGTH "${text}" length)
set(pieces "")
set(at 0)
while(at LESS length)
  string(SUBSTRING "${text}" ${at} 8000 piece)
  string(APPEND pieces "R\"kiln-text(${piece})kiln-text\"\n")
  math(EXPR at "${at} + 8000")
endwhile()
file(WRITE "${OUTPUT}" "// Made of ${INPUT} by cmake/embed_text.cmake.\nnamespace kiln {\nextern const char* const ${NAME};\nconst char* const ${NAME} =\n${pieces};\n}  // namespace kiln\n")
