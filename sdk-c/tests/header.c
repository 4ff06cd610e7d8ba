/* The header alone, as C99 and as C++17. */
#include <p2pos/p2pos.h>

int main(void) {
    return p2pos_version() == 0;
}
