#include <stddef.h>
#include <stdint.h>

uint32_t crc32(const uint8_t *data, size_t size);

static const uint8_t message[] = "123456789";

/* The check value of this CRC is 0xcbf43926: whoever debugs the board finds 1 here if all is well. */
volatile uint32_t crc_is_right;

int main(void)
{
    crc_is_right = crc32(message, sizeof message - 1) == 0xcbf43926u;
    for (;;)
        ;
}
