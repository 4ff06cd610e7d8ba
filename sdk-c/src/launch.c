/* The launch environment and the endpoint file; see launch.h. */
#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sha256.h"

/* Bytes of an endpoint file; a real one has some 300. */
#define FILE_BYTES_MAX 16384
/* How deep JSON may be nested that we only step over. */
#define DEPTH_MAX 16

/* --- a reader for the one JSON file that matters: strings, and stepping over the rest --- */

struct json {
    const char *at;
    const char *end;
};

static char peek(struct json *json) {
    while (json->at < json->end && (*json->at == ' ' || *json->at == '\t' || *json->at == '\n' || *json->at == '\r')) {
        json->at++;
    }
    return json->at < json->end ? *json->at : '\0';
}

static bool expect(struct json *json, char wanted) {
    if (peek(json) != wanted) {
        return false;
    }
    json->at++;
    return true;
}

/* A string into `text`, cut if it is too long; the escapes that a path can have are understood. */
static bool read_string(struct json *json, char *text, size_t room) {
    size_t size = 0;
    if (!expect(json, '"')) {
        return false;
    }
    while (json->at < json->end && *json->at != '"') {
        char byte = *json->at++;
        if (byte == '\\') {
            if (json->at == json->end || strchr("\"\\/", *json->at) == NULL) {
                return false;
            }
            byte = *json->at++;
        }
        if (size + 1 >= room) {
            return false;
        }
        text[size++] = byte;
    }
    text[size] = '\0';
    return expect(json, '"');
}

/* Steps over any value. */
static bool step_over(struct json *json) {
    size_t depth = 0;
    do {
        char first = peek(json);
        if (first == '"') {
            for (json->at++; json->at < json->end && *json->at != '"'; json->at++) {
                json->at += *json->at == '\\' && json->end - json->at > 1 ? 1 : 0;
            }
            if (!expect(json, '"')) {
                return false;
            }
        } else if (first == '{' || first == '[') {
            json->at++;
            if (++depth > DEPTH_MAX) {
                return false;
            }
        } else if (first == '}' || first == ']') {
            if (depth == 0) {
                return false;
            }
            json->at++;
            depth--;
        } else if (first == '\0') {
            return false;
        } else {
            json->at++;
        }
        first = peek(json);
        if (depth == 0 && (first == ',' || first == '}')) {
            return true;
        }
    } while (true);
}

static bool read_hex(const char *text, uint8_t *bytes, size_t size) {
    static const char digits[] = "0123456789abcdef";
    if (strlen(text) != 2 * size) {
        return false;
    }
    for (size_t i = 0; i < 2 * size; i++) {
        const char *place = strchr(digits, text[i]);
        if (place == NULL) {
            return false;
        }
        unsigned digit = (unsigned)(place - digits);
        bytes[i / 2] = (uint8_t)(i % 2 == 0 ? digit << 4 : bytes[i / 2] | digit);
    }
    return true;
}

bool p2pos_launch_parse(const char *text, size_t size, struct p2pos_launch *launch) {
    struct json json = {text, text + size};
    char key[64];
    char secret[2 * P2POS_SECRET_BYTES + 1];
    bool has_endpoint = false;
    launch->has_secret = false;
    if (!expect(&json, '{')) {
        return false;
    }
    do {
        if (!read_string(&json, key, sizeof key) || !expect(&json, ':')) {
            return false;
        }
        if (strcmp(key, "endpoints") == 0) {
            struct json list = json;
            has_endpoint = expect(&list, '[') && read_string(&list, launch->endpoint, sizeof launch->endpoint);
        } else if (strcmp(key, "secret") == 0) {
            struct json value = json;
            launch->has_secret =
                read_string(&value, secret, sizeof secret) && read_hex(secret, launch->secret, sizeof launch->secret);
        }
        if (!step_over(&json)) {
            return false;
        }
    } while (expect(&json, ','));
    p2pos_wipe(secret, sizeof secret);
    return expect(&json, '}') && has_endpoint && launch->has_secret;
}

/* --- where it all comes from --- */

static int read_file(const char *path, const p2pos_allocator *allocator, struct p2pos_launch *launch, p2pos_problem *problem) {
    char *text = p2pos_alloc(allocator, FILE_BYTES_MAX);
    if (text == NULL) {
        return p2pos_problem_set(problem, P2POS_ERR_MEMORY, "no memory for the endpoint file");
    }
    int file = open(path, O_RDONLY | O_CLOEXEC);
    size_t size = 0;
    ssize_t count = file < 0 ? -1 : 1;
    while (count > 0 && size < FILE_BYTES_MAX) {
        count = read(file, text + size, FILE_BYTES_MAX - size);
        if (count < 0 && errno == EINTR) {
            count = 1;
        } else if (count > 0) {
            size += (size_t)count;
        }
    }
    int code = P2POS_OK;
    if (count < 0) {
        code = p2pos_problem_set(problem, P2POS_ERR_LAUNCH, "cannot read %s: %s", path, strerror(errno));
    } else if (!p2pos_launch_parse(text, size, launch)) {
        code = p2pos_problem_set(problem, P2POS_ERR_LAUNCH, "%s is no endpoint file", path);
    }
    if (file >= 0) {
        close(file);
    }
    p2pos_wipe(text, FILE_BYTES_MAX);
    p2pos_free(allocator, text);
    return code;
}

static const char *environment(const char *name) {
    const char *value = getenv(name);
    return value == NULL ? "" : value;
}

/* True if the list, separated by commas or spaces, has "1" in it. */
static bool has_version(const char *versions) {
    while (*versions != '\0') {
        size_t length = strcspn(versions, ", ");
        if (length == 1 && versions[0] == '1') {
            return true;
        }
        versions += length;
        versions += strspn(versions, ", ");
    }
    return false;
}

static int copy(char *field, size_t room, const char *text, const char *what, p2pos_problem *problem) {
    if (strlen(text) >= room) {
        return p2pos_problem_set(problem, P2POS_ERR_LAUNCH, "%s has %zu bytes, at most %zu fit", what, strlen(text), room - 1);
    }
    memcpy(field, text, strlen(text) + 1);
    return P2POS_OK;
}

int p2pos_launch_find(const p2pos_options *options, const p2pos_allocator *allocator, struct p2pos_launch *launch,
                      p2pos_problem *problem) {
    memset(launch, 0, sizeof *launch);
    if (options->endpoint_file != NULL) {
        return read_file(options->endpoint_file, allocator, launch, problem);
    }
    const char *endpoint = options->endpoint != NULL ? options->endpoint : environment("P2POS_ENDPOINT");
    const char *token = options->token != NULL ? options->token : environment("P2POS_TOKEN");
    const char *versions = environment("P2POS_PROTOCOL_VERSIONS");
    if (endpoint[0] == '\0' || token[0] == '\0') {
        return p2pos_problem_set(problem, P2POS_ERR_LAUNCH,
                                 "P2POS_ENDPOINT and P2POS_TOKEN are not set: no daemon started this program");
    }
    if (options->endpoint == NULL && versions[0] != '\0' && !has_version(versions)) {
        return p2pos_problem_set(problem, P2POS_ERR_LAUNCH, "the daemon speaks plugin protocol %s, this library speaks 1", versions);
    }
    launch->exits_with_stdin = options->ignores_stdin == 0 && strcmp(environment("P2POS_EXIT_ON_STDIN_CLOSE"), "1") == 0;
    int code = copy(launch->endpoint, sizeof launch->endpoint, endpoint, "the endpoint", problem);
    return code != 0 ? code : copy(launch->token, sizeof launch->token, token, "the token", problem);
}
