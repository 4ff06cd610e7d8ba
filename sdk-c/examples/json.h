/* The little JSON that /chat/1 needs: members of one flat object, strings and whole numbers. For the chat example alone. */
#ifndef EXAMPLE_JSON_H
#define EXAMPLE_JSON_H

#include <stddef.h>

/* The member's value; 0: it is not there, or is something else, or does not fit. */
int json_number(const char *object, const char *name, unsigned long *number);
int json_string(const char *object, const char *name, char *text, size_t room);

/* `text` as a JSON string with its quotes; what is no UTF-8 was typed in another code and is passed on. `room`: 6 times the text and 3. */
void json_write_string(const char *text, char *out, size_t room);

/* What a terminal might obey becomes a question mark: strangers wrote it. */
void json_make_harmless(char *text);

#endif
